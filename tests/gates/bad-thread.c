/* Two threads count without a lock: ThreadSanitizer has to say so. */
#include <pthread.h>

static int count;

static void *add(void *unused)
{
	for (int i = 0; i < 100000; i++)
		count++;
	return unused;
}

int main(void)
{
	pthread_t one, two;
	if (pthread_create(&one, NULL, add, NULL) != 0 || pthread_create(&two, NULL, add, NULL) != 0)
		return 0;
	pthread_join(one, NULL);
	pthread_join(two, NULL);
	return 0;
}
