"""The standalone server: the wire protocol of Pie's clients, and everything around it."""
