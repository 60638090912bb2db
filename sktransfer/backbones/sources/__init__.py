"""From a name, a file, a module or an architecture to a backbone."""
