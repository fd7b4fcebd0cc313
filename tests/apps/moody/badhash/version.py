VERSION = "bad hash"
