"""The exchanged files: one module each, with its record, reader, writer and checks."""
