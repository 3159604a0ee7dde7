/* Containers of the docker engine by their names, over its API (Docker Engine API, "Inspect a container"). */
#include <curl/curl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "fs/base/cleanup.h"
#include "tools/image/image-docker.h"

#define ANSWER_MAX      (1u << 20)
#define TIMEOUT_SECONDS 5L

typedef struct Answer {
	char *data;
	size_t size;
} Answer;

static size_t on_body(char *data, size_t unit, size_t count, void *arg)
{
	Answer *answer = arg;
	size_t size = unit * count;
	if (size > ANSWER_MAX - answer->size)
		return 0;
	char *larger = realloc(answer->data, answer->size + size + 1);
	if (!larger)
		return 0;
	answer->data = larger;
	memcpy(answer->data + answer->size, data, size);
	answer->size += size;
	return size;
}

static bool is_id(const char *text)
{
	return text && strlen(text) == IMAGE_DOCKER_ID - 1 && strspn(text, "0123456789abcdef") == IMAGE_DOCKER_ID - 1;
}

static int read_id(const Answer *answer, char ret_id[static IMAGE_DOCKER_ID])
{
	json_t *root = json_loadb(answer->data, answer->size, 0, NULL);
	const char *id = json_string_value(json_object_get(root, "Id"));
	int r = is_id(id) ? 0 : -EBADMSG;
	if (r == 0)
		memcpy(ret_id, id, IMAGE_DOCKER_ID);
	json_decref(root);
	return r;
}

static int ask(CURL *curl, const char *socket, const char *name, char ret_id[static IMAGE_DOCKER_ID])
{
	_cleanup_free_ char *url = NULL;
	Answer answer = { 0 };
	char *escaped = curl_easy_escape(curl, name, 0);
	int length = escaped ? asprintf(&url, "http://docker/containers/%s/json", escaped) : -1;
	curl_free(escaped);
	if (length < 0) {
		url = NULL;
		return -ENOMEM;
	}
	(void)curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
	(void)curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	(void)curl_easy_setopt(curl, CURLOPT_TIMEOUT, TIMEOUT_SECONDS);
	(void)curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
	(void)curl_easy_setopt(curl, CURLOPT_WRITEDATA, &answer);
	if (curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, socket) != CURLE_OK ||
	    curl_easy_setopt(curl, CURLOPT_URL, url) != CURLE_OK)
		return -ENOMEM;
	int r = curl_easy_perform(curl) == CURLE_OK ? read_id(&answer, ret_id) : -ENOENT;
	free(answer.data);
	return r;
}

int image_docker_container(const char *socket, const char *name, char ret_id[static IMAGE_DOCKER_ID])
{
	Error error = { 0 };
	int r = image_docker_socket(socket, &socket, &error);
	if (r < 0)
		return r;
	CURL *curl = curl_easy_init();
	if (!curl)
		return -ENOMEM;
	r = ask(curl, socket, name, ret_id);
	curl_easy_cleanup(curl);
	return r;
}
