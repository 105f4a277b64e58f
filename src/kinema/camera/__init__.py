"""Steering the camera."""
