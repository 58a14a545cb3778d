"""One adapter per golden file: the case's inputs to our functions, and their results under the case's names."""
