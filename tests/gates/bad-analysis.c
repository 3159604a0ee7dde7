/* Clears as many bytes as a pointer has: the analyser's gate has to refuse it. */
#include <string.h>

void bad_analysis(int *numbers);

void bad_analysis(int *numbers)
{
	memset(numbers, 0, sizeof(numbers));
}
