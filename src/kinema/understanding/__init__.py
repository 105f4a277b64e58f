"""Methods that read a clip with a video model instead of making one."""
