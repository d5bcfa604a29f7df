// What the kernel keeps this process from.
#include <fcntl.h>
#include <linux/close_range.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <initializer_list>

#include "engine/plugin_host/child/session.h"

namespace switchyard::plugin_child {
namespace {

constexpr rlim_t kMemory = rlim_t(4) << 30;

// Everything stays allowed but these calls, which then fail with `error`.
Result<void> refuse_calls(std::initializer_list<int> calls, int error) {
  const scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
  if (!filter) return fail(ErrorCode::kPlugin, "no filter of system calls could be made");
  int problem = 0;
  for (const int call : calls)
    if (problem == 0 && call != __NR_SCMP_ERROR)
      problem = seccomp_rule_add(filter, SCMP_ACT_ERRNO(uint32_t(error)), call, 0);
  if (problem == 0) problem = seccomp_load(filter);
  seccomp_release(filter);
  if (problem != 0)
    return fail(ErrorCode::kPlugin,
                std::string("the kernel takes no filter of system calls: ") + std::strerror(-problem));
  return {};
}

}  // namespace

Result<void> limit_process() {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::close_range(4, ~0U, 0);
  const rlimit no_core{0, 0}, files{64, 64};
  ::setrlimit(RLIMIT_CORE, &no_core);
  ::setrlimit(RLIMIT_NOFILE, &files);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // their shadows take terabytes of addresses
  const rlimit memory{kMemory, kMemory};
  ::setrlimit(RLIMIT_AS, &memory);
#endif
  ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  return refuse_calls(
      {SCMP_SYS(socket), SCMP_SYS(connect), SCMP_SYS(bind), SCMP_SYS(listen), SCMP_SYS(accept), SCMP_SYS(accept4),
       SCMP_SYS(execve), SCMP_SYS(execveat), SCMP_SYS(ptrace), SCMP_SYS(process_vm_readv), SCMP_SYS(process_vm_writev),
       SCMP_SYS(mount), SCMP_SYS(umount2), SCMP_SYS(unshare), SCMP_SYS(setns), SCMP_SYS(bpf), SCMP_SYS(kexec_load),
       SCMP_SYS(init_module), SCMP_SYS(io_uring_setup)},
      EPERM);
}

Result<void> forbid_files() {
  return refuse_calls(
      {SCMP_SYS(open),      SCMP_SYS(openat),   SCMP_SYS(openat2),  SCMP_SYS(creat),       SCMP_SYS(unlink),
       SCMP_SYS(unlinkat),  SCMP_SYS(rename),   SCMP_SYS(renameat), SCMP_SYS(renameat2),   SCMP_SYS(mkdir),
       SCMP_SYS(mkdirat),   SCMP_SYS(rmdir),    SCMP_SYS(link),     SCMP_SYS(linkat),      SCMP_SYS(symlink),
       SCMP_SYS(symlinkat), SCMP_SYS(truncate), SCMP_SYS(chmod),    SCMP_SYS(fchmodat),    SCMP_SYS(chown),
       SCMP_SYS(fchownat),  SCMP_SYS(mknod),    SCMP_SYS(mknodat),  SCMP_SYS(memfd_create)},
      EACCES);
}

}  // namespace switchyard::plugin_child
