// switchyard-plugin-host: one plugin in a process with limits. Started by the program with a socket as descriptor 3; of
// no use by hand.
#include <unistd.h>

#include <cstdio>

#include <fcntl.h>

#include "engine/plugin_host/child/session.h"

int main() {
  if (::fcntl(3, F_GETFD) < 0) {
    std::fputs("switchyard-plugin-host runs a plugin for Switchyard; it is not started by hand.\n", stderr);
    return 2;
  }
  switchyard::Wire wire{switchyard::Descriptor(3)};
  switchyard::plugin_child::Session session(wire);
  session.run();
  ::_exit(0);  // no destructors of libraries that may do anything
}
