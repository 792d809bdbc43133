"""Language models as sessions: token ids in, token ids out; knows nothing of texts or needles."""
