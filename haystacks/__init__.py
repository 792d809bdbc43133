"""Real text and planted facts as token ids; knows nothing of models or experiments."""
