"""From a module of LLVM code to a solve: machine code, its cache on disk, and calls of it."""
