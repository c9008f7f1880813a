"""Steps of the Llama family on a processor, in C++: compiled where the program runs, and left out where that fails."""
