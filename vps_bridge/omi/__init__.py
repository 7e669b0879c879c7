"""OMI as it is: its developer webhooks come in on a listener of their own, and labels go back through its API."""
