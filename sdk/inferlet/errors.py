"""What an inferlet raises to end itself."""


class Failure(Exception):
    """Ends the inferlet; the client's Exception event carries exactly this text (contract X0)."""
