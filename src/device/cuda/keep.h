/*
 * Descriptors of the copier whose end tells others that this process touches their memory no more: the I/O lock
 * and the workers' fences.
 *
 * A process that dies closes its files itself, in the order of their numbers, but what closing a file does is put
 * off and then done in the opposite order: the highest number is given back first (task_work_run() of Linux 4.3
 * and later). The driver's own files, with all that the device still does, have to go before these, so these
 * need lower numbers: a range of them is taken before the driver is opened.
 */
#ifndef STOKER_DEVICE_CUDA_KEEP_H
#define STOKER_DEVICE_CUDA_KEEP_H

#define KEEP_MAX 1024u		/* an attachment's fence is one for each of its regions */

/* Take the numbers: once, before the driver is opened. Where there are fewer to be had, fewer are taken. */
void keep_open(void);
/* Move @fd to one of them. Returns its new number (@fd is closed), or @fd if none is left. */
int keep_put(int fd);
/* Close what keep_put() has returned; -1 is fine. */
void keep_close(int fd);

#endif
