"""The data plane: memory layouts and the hot loop. Imports nothing of the compiler."""
