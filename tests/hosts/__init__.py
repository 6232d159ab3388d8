"""The load of the torture over several hosts: network namespaces with own addresses, clocks, disks and host names."""
