"""kinema: make and edit video with any video diffusion model."""
