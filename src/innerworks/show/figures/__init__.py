"""Figures: plain functions from a table to a `plotly.graph_objects.Figure`, in a notebook, the report and the app."""
