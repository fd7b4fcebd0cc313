VERSION = "broken"
