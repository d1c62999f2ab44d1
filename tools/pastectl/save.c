// SPDX-License-Identifier: MIT
/*
 * pastectl: the file with a NIC's values from before nic prepare.
 *
 *   # values before pastectl nic prepare; pastectl nic restore eth1 puts them back
 *   nic 3 ixgbe
 *   rx-vlan-offload on
 *   irq-0 0-7
 *
 * The line nic is for telling another NIC, or one whose driver has started anew,
 * from the one that was prepared: it has another ifindex, and none of this is
 * about it. /run is empty after a reboot, as the settings are the driver's then.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "nic.h"

#define DIRECTORY "/run/paste"

const char *saved_path(const struct nic *nic)
{
	static char path[64];

	snprintf(path, sizeof(path), DIRECTORY "/%s", nic->name);
	return path;
}

const char *saved_get(const struct saved *s, const char *key)
{
	size_t i;

	for (i = 0; i < s->n; i++)
		if (!strcmp(s->v[i].key, key))
			return s->v[i].value;
	return NULL;
}

void saved_add(struct saved *s, const char *key, const char *value)
{
	if (saved_get(s, key))
		return;
	s->v = reallocarray(s->v, s->n + 1, sizeof(*s->v));
	if (!s->v)
		err(1, "saving");
	s->v[s->n++] = (struct saved_value){ text_of("%s", key), text_of("%s", value) };
}

void saved_free(struct saved *s)
{
	while (s->n--) {
		free(s->v[s->n].key);
		free(s->v[s->n].value);
	}
	free(s->v);
	*s = (struct saved){};
}

int saved_lock(void)
{
	int fd;

	if (mkdir(DIRECTORY, 0755) && errno != EEXIST)
		return -errno;
	fd = open(DIRECTORY, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || flock(fd, LOCK_EX))
		return -errno;
	return fd;
}

int saved_load(const struct nic *nic, struct saved *s)
{
	char *line = NULL, *value, *id = text_of("nic %u %s", nic->ifindex, nic->driver);
	FILE *f = fopen(saved_path(nic), "re");
	bool ours = false;
	size_t size = 0;
	int ret;

	*s = (struct saved){};
	while (f && getline(&line, &size, f) > 0) {
		line[strcspn(line, "\n")] = 0;
		ours |= !strcmp(line, id);
		value = strchr(line, ' ');
		if (!ours || !value || !strcmp(line, id))
			continue;
		*value++ = 0;
		saved_add(s, line, value);
	}
	ret = f || errno == ENOENT ? 0 : -errno;
	if (f)
		fclose(f);
	free(line);
	free(id);
	return ret;
}

/* Whole or not at all, and on its way to nobody but root. */
int saved_store(const struct nic *nic, const struct saved *s)
{
	char temp[] = DIRECTORY "/.new.XXXXXX";
	int fd = mkostemp(temp, O_CLOEXEC); /* mode 0600 */
	FILE *f = fd < 0 ? NULL : fdopen(fd, "w");
	int ret = 0;
	size_t i;

	if (!f)
		return -errno;
	fprintf(f, "# values before pastectl nic prepare; pastectl nic restore %s puts them back\n",
		nic->name);
	fprintf(f, "nic %u %s\n", nic->ifindex, nic->driver);
	for (i = 0; i < s->n; i++)
		fprintf(f, "%s %s\n", s->v[i].key, s->v[i].value);
	if (fclose(f) || rename(temp, saved_path(nic)))
		ret = -errno;
	if (ret)
		unlink(temp);
	return ret;
}

int saved_remove(const struct nic *nic)
{
	return unlink(saved_path(nic)) && errno != ENOENT ? -errno : 0;
}
