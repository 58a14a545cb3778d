"""One adapter per model family; foreign conventions end here."""
