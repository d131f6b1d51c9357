"""The decision: who gets which phone, until when. Standard library only; the outside comes in through Protocols."""
