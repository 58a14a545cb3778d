"""What every room needs: errors, files, draws, provenance, progress. No torch at import."""
