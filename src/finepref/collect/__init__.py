"""The web page that collects votes."""
