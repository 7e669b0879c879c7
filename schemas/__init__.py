"""The contract: messages, topics, and the bounded codec. Imports nothing else of ours."""
