"""`python -m thriftune.cli`: the command line as a module, which is what launchers of several processes start."""

from thriftune.cli.main import main

if __name__ == "__main__":
    main()
