"""The sampling loop and what plugs into it. Names no method and no model."""
