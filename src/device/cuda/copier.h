/*
 * The copier of a GPU: the process that alone opens libcuda for it.
 */
#ifndef STOKER_DEVICE_CUDA_COPIER_H
#define STOKER_DEVICE_CUDA_COPIER_H

/*
 * What `stokerd --copier FD` runs: serve the broker at the other end of @fd (src/device/cuda/wire.h) until it is
 * gone. Returns the exit status; most often it does not return at all.
 */
int copier_main(int fd);

#endif
