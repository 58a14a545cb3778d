"""Image scorers on plain transformers modules, one file each, behind one protocol."""
