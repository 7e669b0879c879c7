"""The webhook: updates and failures, sent by HTTP to a receiver that the operator names."""
