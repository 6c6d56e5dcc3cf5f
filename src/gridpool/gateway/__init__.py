"""HTTP faces and the dashboard."""
