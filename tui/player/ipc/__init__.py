"""The player's socket: other programs control the player and follow it, in lines of JSON."""
