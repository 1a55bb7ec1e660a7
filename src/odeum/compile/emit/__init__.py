"""LLVM code for graphs and for the time loop around them, written through llvmlite."""
