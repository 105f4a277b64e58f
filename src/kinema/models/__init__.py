"""Networks of kinema's own: only what diffusers and transformers do not have."""
