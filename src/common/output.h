/* Standard output of the commands: what does not arrive there is no success. */
#ifndef STOKER_COMMON_OUTPUT_H
#define STOKER_COMMON_OUTPUT_H

/*
 * Before anything is opened: a reader that went away is an error of writing, not a signal; and nothing that is
 * opened later gets the number of a standard descriptor that was closed, and with it what is printed.
 */
void output_begin(void);
/* All that was printed has been written: 0, or -errno. */
int output_end(void);

#endif
