/* Loses an allocation: LeakSanitizer has to say so. */
#include <stdlib.h>

int main(void)
{
	volatile char *lost = malloc(8);
	lost = NULL;
	return lost != NULL;
}
