"""From what a ramdisk's agent saw of a machine to what the API says of it."""
