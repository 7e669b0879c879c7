"""What is known of a conversation as a file that other programs read: RTTM, SRT, WebVTT and JSON."""
