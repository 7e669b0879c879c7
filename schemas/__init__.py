"""The contract between all programs: messages, topics, and a codec with limits. Imports nothing else of ours."""
