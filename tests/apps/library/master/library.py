GREETING = "of the submodule"
