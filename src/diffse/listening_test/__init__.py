"""Listening tests after ITU-R BS.1534 (MUSHRA) with webMUSHRA: export of a test, import of its ratings."""
