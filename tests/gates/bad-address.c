/* Reads past the end of an allocation: AddressSanitizer has to stop it. */
#include <stdlib.h>

int main(int argc, char **argv)
{
	(void)argv;
	volatile char *bytes = malloc(8);
	return bytes ? bytes[7 + argc] & 0 : 0;
}
