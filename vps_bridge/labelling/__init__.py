"""From speaker turns to labels on segments, without I/O."""
