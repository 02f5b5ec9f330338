"""When it will be done: phases and people's tasks in time, buffers, the critical path, the deadline's chance."""
