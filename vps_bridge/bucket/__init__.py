"""Accepted audio in a bucket of any S3-compatible store: encrypted before it leaves, deleted in every version."""
