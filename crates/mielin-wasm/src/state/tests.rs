//! Host sections: round trips, and what hostile ones do.
