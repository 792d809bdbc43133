"""Models behind servers: `openai:MODEL` sends ids or text to any server that completes prompts."""
