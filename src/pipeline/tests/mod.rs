//! The actors together, on the memory store and real threads.
