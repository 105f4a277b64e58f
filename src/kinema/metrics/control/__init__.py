"""How close a clip is to the clip that it should follow."""
